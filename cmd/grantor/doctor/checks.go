package doctor

// severity is how bad a finding is. Its text is part of the JSON output.
type severity string

const (
	// severityError breaks or endangers the deployment now.
	severityError severity = "error"
	// severityWarning will break something, or could.
	severityWarning severity = "warning"
	// severityNote is a possible improvement.
	severityNote severity = "note"
	// severityOK is a check without a finding.
	severityOK severity = "ok"
)

// check is one thing that doctor checks. The ID is stable, because scripts use it.
type check struct {
	ID       string
	Severity severity
	// Finds describes the finding, and Do the remedy.
	Finds, Do string
}

// checks are all checks, in the order of the output. docs/doctor.md has the same table.
var checks = []check{
	{"doctor.time", severityError, "`--timeout` passed before everything was checked", "give more time, or find out what is slow: some checks below were not made"},

	{"redis.reach", severityError, "the Redis does not answer, or refuses the user, the password or the certificate", "check that the URL of `redis` is right and the server runs; the authority of its certificate belongs in `redis-tls-ca-file`, or in `SSL_CERT_FILE`"},
	{"redis.allowed", severityError, "a command that Grantor needs failed, usually because the user may not run it", "give the Redis user the rights listed in docs/doctor.md"},
	{"redis.hidden", severityNote, "the user may not read something, which was therefore not checked", "run doctor as a user with the rights listed in docs/doctor.md"},
	{"redis.version-old", severityError, "the Redis is older than 7", "update to a Redis or Valkey that gets security fixes"},
	{"redis.version-vulnerable", severityWarning, "the version has a known vulnerability that anyone who reaches the Redis can exploit", "update; if the distributor patched this version without renaming it, `--skip` this check"},
	{"redis.eviction", severityError, "the Redis may evict any key, including a client or a revocation; a replica refuses to start with it", "set `maxmemory-policy noeviction`"},
	{"redis.forgets", severityError, "neither an append-only file nor snapshots: a restart loses clients, keys and revocations", "set `appendonly yes`"},
	{"redis.persistence", severityWarning, "no append-only file: changes since the last snapshot are lost when the Redis stops", "set `appendonly yes`"},
	{"redis.replay", severityError, "the user `default` lacks rights. A Redis replays its append-only file with that user's rights at start, and drops what scripts wrote: all data of Grantor", "grant the rights, and disable the login: `ACL SETUSER default off resetpass ~* &* +@all`, and the same in the ACL file"},
	{"redis.fsync", severityWarning, "the append-only file is not flushed to disk: if the machine fails, changes are lost", "set `appendfsync everysec`, or `always`"},
	{"redis.disk", severityError, "the last write of the append-only file or of a snapshot failed; the Redis may refuse further changes", "see the log of the Redis; usually its disk is full or read-only"},
	{"redis.memory", severityWarning, "more than 80 % of `maxmemory` is in use; at the limit the Redis refuses changes", "raise `maxmemory`"},
	{"redis.connections", severityWarning, "more than 80 % of `maxclients` are connected; at the limit the Redis refuses connections", "raise `maxclients`, or find out what keeps connections open"},
	{"redis.role", severityError, "the server is a replica, which refuses changes", "name the primary in `redis`, or Sentinel or Cluster, which find it"},
	{"redis.writes", severityError, "fewer replicas are in sync than `min-replicas-to-write` requires, so changes are refused", "start the missing replicas of the Redis"},
	{"redis.replicas", severityError, "fewer replicas are connected than `revocation-replicas` requires, so revocations are answered with 503", "start the missing replicas of the Redis, or lower `revocation-replicas`"},
	{"redis.lag", severityWarning, "a replica is not in sync: it was silent for more than 5 s, or is more than 1 MiB behind", "check that replica, and the network between"},
	{"redis.alone", severityNote, "the Redis has no replica: while it is down nothing can be changed or revoked", "add a replica, with Sentinel or Cluster to fail over"},
	{"redis.plaintext", severityWarning, "the connection to the Redis is not encrypted, beyond loopback; the password can be read in transit", "use `rediss://`"},
	{"redis.unverified", severityError, "the URL has `skip_verify`: anyone on the network path can impersonate the Redis", "remove `skip_verify`; the certificate's authority belongs in `redis-tls-ca-file`"},
	{"redis.certificate", severityWarning, "the certificate of the Redis expires within 14 days", "renew it"},
	{"redis.client-certificate", severityError, "the Redis asks for a certificate from its clients (`tls-auth-clients`), and refuses the connection without one, or with this one", "set `redis-tls-cert-file` and `redis-tls-key-file` to a certificate of an authority in the Redis' `tls-ca-cert-file`, with the extended key usage `clientAuth` if it has one"},
	{"redis.client-certificate-optional", severityNote, "the Redis asks for a certificate from its clients, and accepts connections without one", "set `redis-tls-cert-file` and `redis-tls-key-file`, or `tls-auth-clients` of the Redis to `no` or `yes`"},
	{"redis.client-certificate-ends", severityWarning, "the certificate that is presented to the Redis expires within 14 days", "renew it; the replicas read the files again by themselves"},
	{"redis.client-certificate-ended", severityError, "the certificate that is presented to the Redis has expired", "renew it; the replicas read the files again by themselves"},
	{"redis.password", severityWarning, "the Redis accepts connections without a password", "set a password for the user `default`, or turn it off: `ACL SETUSER default off`"},
	{"redis.rights", severityNote, "Grantor's user may do more than Grantor needs", "give it the rights listed in docs/doctor.md and no others"},
	{"redis.shared", severityWarning, "the database has keys that are not this issuer's; a program that can write them can undo revocations", "give Grantor a Redis of its own"},
	{"redis.clock", severityWarning, "the clocks of this machine and of the Redis are more than 5 s apart", "keep both on time, by NTP"},
	{"redis.slow", severityWarning, "a round trip to the Redis takes more than 20 ms", "move the Redis closer, or check its load: each change waits for it"},
	{"redis.slowlog", severityNote, "commands of Grantor took more than 100 ms in the Redis within the last day", "check the load and the disk of the Redis"},
	{"feed.size", severityWarning, "the feed has more than a million changes, which each replica and verifier holds in memory", "find out from the audit events which client revokes so much, or shorten the lifetimes of tokens"},
	{"feed.ahead", severityError, "the last ID of the feed is more than an hour in the future: something else wrote it. Until that time no entry is trimmed; if it is the highest possible ID, every change and revocation is refused", "find out what else can write to the Redis, or why its clock was wrong. Leave the replicas running and delete the feed in Redis: the replicas write the revocations again. Without a running replica they would be lost: start one first"},

	{"feed.unreadable", severityError, "an entry of the feed cannot be read, so that what it announced has no effect: perhaps a revocation", "find out what else can write to the Redis; revoke again (`grantor client revoke`, `grantor token revoke`). The entry is trimmed within about a day, and delays no other"},
	{"uses.unreadable", severityWarning, "when a client's secrets were last used cannot be read", "find out what else can write to the Redis. The next use replaces it within a minute; `HDEL` of that field removes it"},
	{"counts.unreadable", severityWarning, "a count of a limit is not a number: that limit restarts from zero", "find out what else can write to the Redis. The key expires by itself"},
	{"audit.unreadable", severityWarning, "an audit event cannot be read", "find out what else can write to the Redis, and rely on the log of the replicas; `XDEL` of that entry removes it"},

	{"key.unchecked", severityNote, "without the key-encryption key, neither the key ring nor the clients can be checked", "give it as to `grantor serve`"},
	{"key.ring", severityError, "there is no key ring: no replica ever ran on this Redis, or its data is lost", "check that `redis` and `redis-prefix` are those of the replicas; if data was lost, leave the replicas running"},
	{"key.unreadable", severityError, "the key ring cannot be read: something else altered it", "find out what else can write to the Redis. Leave the replicas running and delete that key in Redis: a replica writes the ring again. Without a running replica, restore a backup: a ring that is deleted is lost, and with it all generated secrets"},
	{"key.seal", severityError, "the key-encryption key does not open the key ring: a replica that starts with it exits at once", "give the key that sealed it; during a change of keys, give the other one as `previous-key-encryption-key-file`"},
	{"key.previous", severityWarning, "the previous key-encryption key sealed the ring, and is still needed", "restart a replica that has the new key first: it seals the ring again"},
	{"key.overdue", severityError, "a key has signed for longer than `key-rotation` and has no successor: the replicas do not rotate", "see the log of the replicas; `grantor key rotate` creates successors"},
	{"key.missing", severityError, "an algorithm of `signing-algorithms` has no key that signs", "restart a replica: it creates missing keys"},

	{"replica.none", severityError, "no replica announces itself in this Redis", "start one; check that `redis` and `redis-prefix` are those of the replicas"},
	{"replica.alone", severityNote, "only one replica runs: while it restarts, no tokens are issued", "run two or more"},
	{"replica.silent", severityWarning, "a replica did not sign off, has been silent for 30 s, and none was started in its place; it is remembered for 10 minutes", "check that it runs, and reaches the Redis"},
	{"replica.clock", severityWarning, "a replica's clock differs by more than 1 s from that of the Redis; revocations have a resolution of one second", "keep all machines on time, by NTP"},
	{"replica.clock-far", severityError, "a replica's clock differs by more than 5 s from that of the Redis: tokens may outlive revocations, or be not yet valid for verifiers", "keep all machines on time, by NTP"},
	{"replica.behind", severityWarning, "a replica's view of changes and revocations is more than 5 s old", "check the network from it to the Redis"},
	{"replica.stopped", severityError, "a replica's view is older than `max-staleness`: it issues no tokens", "check the network from it to the Redis"},
	{"replica.versions", severityWarning, "replicas of different versions run", "finish the update, or the rollback"},
	{"replica.settings", severityError, "replicas differ in a setting that must be the same: clients get different responses by chance", "give all replicas the same value"},
	{"replica.keys", severityWarning, "a replica publishes other keys than the ring has, and refuses tokens of the missing ones", "run doctor again in a minute; if the finding persists, see that replica's log"},
	{"replica.unreadable", severityWarning, "what a replica reports about itself cannot be read, or a newer release wrote it", "run the newest release everywhere; otherwise find out what else can write to the Redis. A running replica replaces it within 10 s"},
	{"replica.development", severityError, "a replica runs in development mode, whose client has a public secret", "stop it, delete the client `background-service`, and use another Redis for development"},
	{"replica.plaintext", severityWarning, "a replica serves without TLS beyond loopback: `insecure-allow-plaintext-beyond-loopback`", "set `tls-cert-file` and `tls-key-file`, unless something else encrypts"},
	{"replica.certificate", severityWarning, "a replica's certificate expires within 14 days", "renew it; the replica reads the files again by itself"},
	{"replica.certificate-ended", severityError, "a replica's certificate has expired", "renew it; the replica reads the files again by itself"},

	{"ops.reach", severityError, "an operations port of `--replica` does not answer", "check that the replica runs and `ops-listen` can be reached from here"},
	{"ops.ready", severityError, "a replica reports that it is not ready", "its response gives the reason"},

	{"issuer.reach", severityError, "the issuer's URL does not return metadata", "check the name, the port, load balancers and firewalls"},
	{"issuer.other", severityError, "the issuer is not the one of the replicas in this Redis", "give the URL and the Redis of one issuer; all replicas need the same `issuer`"},
	{"issuer.metadata", severityError, "the metadata is that of another issuer (RFC 8414 §3.3): verifiers and clients refuse it", "route the issuer's URL to its own replicas; their `issuer` must equal the URL exactly"},
	{"issuer.places", severityWarning, "the metadata are missing at one of the two places where clients look: the one of RFC 8414, `/.well-known/oauth-authorization-server` before the issuer's path, or the one of OpenID Connect, `/.well-known/openid-configuration` after it", "route both to the replicas, as well as everything below the issuer's URL"},
	{"issuer.endpoints", severityError, "an endpoint in the metadata does not answer as Grantor does: clients get no token, or no answer about one", "route everything below the issuer's URL to the replicas, with the issuer's path or without it, and without redirects"},
	{"issuer.keys", severityError, "the published key set is not that of the ring: valid tokens are refused, or invalid ones accepted", "if a proxy or CDN caches it, make it honor Cache-Control"},
	{"issuer.clock", severityWarning, "the clock of the server behind the issuer's URL differs by more than 5 s from this machine's", "keep both on time, by NTP"},
	{"tls.trust", severityError, "the issuer's certificate is not trusted here, or is for another name", "install the whole chain, for the issuer's host; a private authority belongs in `SSL_CERT_FILE`"},
	{"tls.ended", severityError, "the issuer's certificate, or one of its chain, has expired", "renew it"},
	{"tls.ends", severityWarning, "the issuer's certificate, or one of its chain, expires within 14 days", "renew it"},
	{"tls.version", severityWarning, "the server behind the issuer's URL accepts TLS 1.0 or 1.1 (RFC 8996)", "make the proxy in front of Grantor require TLS 1.2"},
	{"grpc.reach", severityError, "the gRPC endpoint in the metadata does not answer", "check `grpc-endpoint`, the name, the port and firewalls"},
	{"grpc.health", severityError, "the gRPC endpoint reports that it does not serve", "see `/readyz` of the replicas"},

	{"record.altered", severityError, "a record was altered in Redis, not by Grantor, and is not used", "find out what else can write to the Redis; delete that key there and apply again"},
	{"record.unreadable", severityError, "a record cannot be read, or a newer release wrote it", "run the newest release everywhere; otherwise delete that key in Redis, if it is not the key ring, and apply again"},
	{"trust.reach", severityWarning, "the keys of a trusted issuer, or the bundle of a trust domain, cannot be fetched from here; replicas that cannot either refuse its identities, at the latest a day after they last could", "check its URL, its certificate (`ca_file`) and the network; if only the replicas can reach it, `--skip` this check"},
	{"trust.keys", severityError, "a trusted issuer publishes no usable key, or its metadata are those of another issuer: its identities are refused", "check its `issuer`, `jwks_uri` or `bundle_endpoint`"},
	{"trust.files", severityError, "a trusted issuer names a file that is below no directory of `trust-directories`, so that it is not read", "add its directory to `trust-directories` of the replicas, or correct the path"},
	{"client.expiring", severityWarning, "all secrets of a client expire within 14 days", "`grantor client secret rotate`"},
	{"client.locked-out", severityWarning, "all secrets of a client have expired: it gets no tokens", "give it a new one with `grantor client secret rotate`, or disable the client"},
	{"client.secretless", severityNote, "a client has no secret, no keys and no rule for identities elsewhere: it cannot request tokens", "give it one with `grantor client secret rotate`, or delete it"},
	{"client.never-used", severityNote, "a secret is older than 30 days and was never used", "`grantor client secret delete`"},
	{"client.unused", severityNote, "a secret was last used more than 90 days ago", "`grantor client secret delete`"},
	{"client.chosen", severityNote, "a secret that a person chose is older than 90 days", "`grantor client secret rotate`, which generates one of 256 random bits"},
	{"client.disabled", severityNote, "clients are disabled", "delete those that are no longer needed"},
	{"client.administrators", severityNote, "clients may administer the issuer", "check that each of them should"},
	{"client.many", severityNote, "there are more clients than `--clients`: the rest was not checked", "give a larger number"},
}
