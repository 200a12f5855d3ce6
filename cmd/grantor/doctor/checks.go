package doctor

// severity is how bad a finding is. Its text is part of the JSON output.
type severity string

const (
	// isError is what breaks or endangers the deployment now.
	isError severity = "error"
	// isWarning is what will, or could.
	isWarning severity = "warning"
	// isNote is for people who ask what could be better.
	isNote severity = "note"
	// isFine is a check that found nothing.
	isFine severity = "ok"
)

// check is one thing that doctor looks at. The id is stable: scripts name it.
type check struct {
	ID       string
	Severity severity
	// finds says what is wrong when it finds something, do what to do about it.
	Finds, Do string
}

// checks are all checks, in the order of the output. docs/doctor.md shows this table.
var checks = []check{
	{
		"doctor.time", isError, "the time of `--timeout` ended before everything was looked at",
		"give more time, or find out what is slow: the checks behind this one were not made",
	},

	{
		"redis.reach", isError, "the Redis does not answer, or refuses the user, the password or the certificate",
		"see that the URL of `redis` is right and the server runs; the certificate's authority goes into `SSL_CERT_FILE`",
	},
	{
		"redis.allowed", isError, "a command that Grantor needs failed; most often the user may not run it",
		"give the Redis user the rights listed in docs/doctor.md",
	},
	{
		"redis.hidden", isNote, "the user may not look at something, so that was not checked",
		"run doctor as a user with the rights listed in docs/doctor.md",
	},
	{"redis.version-old", isError, "the Redis is older than 7", "update to a Redis or Valkey that gets security fixes"},
	{
		"redis.version-vulnerable", isWarning, "the version has a known vulnerability that whoever reaches the Redis may use",
		"update; where the distributor has patched this version without renaming it, `--skip` this check",
	},
	{"redis.eviction", isError, "the Redis may evict any key, so also a client or a revocation; a replica does not start on it", "set `maxmemory-policy noeviction`"},
	{"redis.forgets", isError, "neither an append-only file nor snapshots: a restart loses clients, keys and revocations", "set `appendonly yes`"},
	{"redis.persistence", isWarning, "no append-only file: what changed since the last snapshot is lost when the Redis stops", "set `appendonly yes`"},
	{
		"redis.replay", isError,
		"the user `default` lacks rights, with which a Redis reads its append-only file at the start: it drops what scripts wrote, which is all of Grantor's",
		"give it the rights, and nobody can log in as it: `ACL SETUSER default off resetpass ~* &* +@all`, and the same in the ACL file",
	},
	{"redis.fsync", isWarning, "the append-only file is not flushed to the disk: a machine that fails takes changes with it", "set `appendfsync everysec`, or `always`"},
	{"redis.disk", isError, "the last write of the append-only file or of a snapshot failed; the Redis may refuse further changes", "see the log of the Redis; most often its disk is full or read-only"},
	{"redis.memory", isWarning, "more than 80 % of `maxmemory` is in use; at the end of it no change is taken", "raise `maxmemory`"},
	{"redis.connections", isWarning, "more than 80 % of `maxclients` are connected; beyond that nobody gets in", "raise `maxclients`, or find who keeps connections open"},
	{"redis.role", isError, "the server is a replica, which takes no changes", "name the primary in `redis`, or Sentinel or Cluster, which find it"},
	{"redis.writes", isError, "fewer replicas are in step than `min-replicas-to-write` asks for, so no change is taken", "start the missing replicas of the Redis"},
	{
		"redis.replicas", isError, "fewer replicas are connected than `revocation-replicas` asks for, so revocations are answered with 503",
		"start the missing replicas of the Redis, or lower `revocation-replicas`",
	},
	{"redis.lag", isWarning, "a replica is not in step: it has been silent for 5 s, or more than 1 MiB behind", "look at that replica, and the network between"},
	{"redis.alone", isNote, "the Redis has no replica: while it is down nothing can be changed or revoked", "add a replica, with Sentinel or Cluster to fail over"},
	{"redis.plaintext", isWarning, "the connection to the Redis is not encrypted, beyond loopback; the password is readable on the way", "use `rediss://`"},
	{"redis.unverified", isError, "the URL says `skip_verify`: anybody on the way can pose as the Redis", "remove `skip_verify`; the certificate's authority goes into `SSL_CERT_FILE`"},
	{"redis.certificate", isWarning, "the certificate of the Redis ends within 14 days", "renew it"},
	{"redis.password", isWarning, "the Redis lets in whoever reaches it, without a password", "set a password for the user `default`, or turn it off: `ACL SETUSER default off`"},
	{"redis.rights", isNote, "Grantor's user may do more than Grantor needs", "give it the rights listed in docs/doctor.md and no others"},
	{"redis.shared", isWarning, "the database has keys that are not this issuer's; who can write them can undo revocations", "give Grantor a Redis of its own"},
	{"redis.clock", isWarning, "the clocks of this machine and of the Redis are more than 5 s apart", "keep both on time, by NTP"},
	{"redis.slow", isWarning, "a round trip to the Redis takes more than 20 ms", "bring the Redis nearer, or look at its load: each change waits for it"},
	{"redis.slowlog", isNote, "commands of Grantor took more than 100 ms in the Redis within the last day", "look at the load and the disk of the Redis"},
	{"feed.size", isWarning, "more than a million changes are in the feed, which each replica and verifier holds in memory", "find out which client revokes so much (the audit events say), or shorten the tokens' lives"},

	{"key.unchecked", isNote, "without the key-encryption key neither key ring nor clients can be checked", "give it as to `grantor serve`"},
	{"key.ring", isError, "there is no key ring: no replica ever ran on this Redis, or its data is lost", "see that `redis` and `redis-prefix` are those of the replicas; if data was lost, leave the replicas running"},
	{"key.seal", isError, "the key-encryption key does not open the key ring: a replica that starts with it ends at once", "give the key that sealed it; during a change of keys the other one as `previous-key-encryption-key-file`"},
	{"key.previous", isWarning, "the previous key-encryption key sealed the ring, and is still needed", "restart a replica that has the new one first: it seals the ring anew"},
	{"key.overdue", isError, "a key signs longer than `key-rotation` and has no successor: the replicas do not rotate", "see the log of the replicas; `grantor key rotate` makes successors"},
	{"key.missing", isError, "an algorithm of `signing-algorithms` has no key that signs", "restart a replica: it makes what is missing"},

	{"replica.none", isError, "no replica tells about itself in this Redis", "start one; see that `redis` and `redis-prefix` are those of the replicas"},
	{"replica.alone", isNote, "only one replica runs: while it restarts there are no tokens", "run two or more"},
	{"replica.silent", isWarning, "a replica did not take leave, has told nothing for 30 s, and none was started in its place; it is remembered for 10 minutes", "see whether it runs, and reaches the Redis"},
	{"replica.clock", isWarning, "a replica's clock is more than 1 s off that of the Redis; revocations count by the second", "keep all machines on time, by NTP"},
	{"replica.clock-far", isError, "a replica's clock is more than 5 s off that of the Redis: tokens may outlive revocations, or come too early for verifiers", "keep all machines on time, by NTP"},
	{"replica.behind", isWarning, "a replica's knowledge of changes and revocations is more than 5 s old", "look at the way from it to the Redis"},
	{"replica.stopped", isError, "a replica's knowledge is older than `max-staleness`: it issues no tokens", "look at the way from it to the Redis"},
	{"replica.versions", isWarning, "replicas of different versions run", "finish the update, or the way back"},
	{"replica.settings", isError, "replicas differ in a setting that must be the same: callers get different answers by chance", "give all replicas the same"},
	{"replica.keys", isWarning, "a replica publishes other keys than the ring has; tokens of the missing ones are refused there", "run doctor again in a minute; if it stays, see that replica's log"},
	{"replica.development", isError, "a replica runs in development mode, whose client has a public secret", "stop it, delete the client `background-service`, and take another Redis for development"},
	{"replica.plaintext", isWarning, "a replica serves without TLS beyond loopback: `insecure-allow-plaintext-beyond-loopback`", "set `tls-cert-file` and `tls-key-file`, unless something else encrypts"},
	{"replica.certificate", isWarning, "a replica's certificate ends within 14 days", "renew it; the files are read again by themselves"},
	{"replica.certificate-ended", isError, "a replica's certificate has ended", "renew it; the files are read again by themselves"},

	{"ops.reach", isError, "an operations port of `--replica` does not answer", "see whether the replica runs and `ops-listen` can be reached from here"},
	{"ops.ready", isError, "a replica says that it is not ready", "what it says is why"},

	{"issuer.reach", isError, "the issuer's URL does not answer with a description", "see name, port, load balancer and firewall on the way"},
	{"issuer.other", isError, "the issuer is not the one of the replicas in this Redis", "give the URL and the Redis of one issuer; all replicas need the same `issuer`"},
	{"issuer.metadata", isError, "the description is that of another issuer (RFC 8414 §3.3): verifiers and clients refuse it", "send the issuer's URL to its own replicas; their `issuer` is the URL, letter by letter"},
	{"issuer.keys", isError, "the published key set is not that of the ring: good tokens are refused, or bad ones taken", "if a proxy or CDN caches it, let it heed Cache-Control"},
	{"issuer.clock", isWarning, "the clock of who answers for the issuer is more than 5 s off this machine's", "keep both on time, by NTP"},
	{"tls.trust", isError, "the issuer's certificate is not trusted here, or is for another name", "install the whole chain, for the issuer's host; a private authority goes into `SSL_CERT_FILE`"},
	{"tls.ended", isError, "the issuer's certificate has ended, or one of its chain", "renew it"},
	{"tls.ends", isWarning, "the issuer's certificate ends within 14 days, or one of its chain", "renew it"},
	{"tls.version", isWarning, "who answers for the issuer accepts TLS 1.0 or 1.1 (RFC 8996)", "have the proxy before Grantor ask for TLS 1.2"},
	{"grpc.reach", isError, "the gRPC endpoint of the description does not answer", "see `grpc-endpoint`, and name, port and firewall on the way"},
	{"grpc.health", isError, "the gRPC endpoint says that it does not serve", "see `/readyz` of the replicas"},

	{"record.altered", isError, "a record was altered in Redis by somebody else than Grantor, and is not used", "find out who can write the Redis; delete that key there and apply again"},
	{"record.unreadable", isError, "a record cannot be read, or a newer release wrote it", "run the newest release everywhere; otherwise delete that key in Redis and apply again"},
	{"client.expiring", isWarning, "all secrets of a client end within 14 days", "`grantor client secret rotate`"},
	{"client.locked-out", isWarning, "all secrets of a client have ended: it gets no tokens", "give it a new one with `grantor client secret rotate`, or disable the client"},
	{"client.secretless", isNote, "a client has no secret: it cannot ask for tokens", "give it one with `grantor client secret rotate`, or delete it"},
	{"client.never-used", isNote, "a secret is older than 30 days and was never used", "`grantor client secret delete`"},
	{"client.unused", isNote, "a secret was last used more than 90 days ago", "`grantor client secret delete`"},
	{"client.chosen", isNote, "a secret that a person chose is older than 90 days", "`grantor client secret rotate`, which makes one of 256 random bits"},
	{"client.disabled", isNote, "clients are disabled", "delete what is not needed any more"},
	{"client.administrators", isNote, "clients may administer the issuer", "see that each of them should"},
	{"client.many", isNote, "there are more clients than `--clients`: the rest was not looked at", "give a larger number"},
}
