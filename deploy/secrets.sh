#!/bin/sh
# Creates what a trial deployment needs, in a new folder: a certificate authority, certificates for Grantor and Redis, the
# key-encryption key, and Redis users with their passwords.
#
#     deploy/secrets.sh FOLDER [REDIS_HOST:PORT]
#
# For production use certificates of your own authority; the rest can stay.
set -eu
if [ $# -eq 0 ]; then
	echo "usage: $0 FOLDER [REDIS_HOST:PORT]" >&2
	exit 2
fi
folder=$1
redis=${2:-localhost:6379}
umask 077
mkdir "$folder"
cd "$folder"
echo '*' >.gitignore

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj '/CN=Grantor trial authority' \
	-addext keyUsage=critical,keyCertSign,cRLSign -keyout ca.key -out ca.crt 2>/dev/null

# certificate NAME creates NAME.key and NAME.crt, valid for a year.
certificate() {
	openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr" 2>/dev/null
	printf '%s\n' 'subjectAltName=DNS:localhost,DNS:redis,DNS:grantor-1,DNS:grantor-2,IP:127.0.0.1,IP:::1' \
		'extendedKeyUsage=serverAuth' 'basicConstraints=critical,CA:FALSE' >"$1.ext"
	openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -extfile "$1.ext" -out "$1.crt" 2>/dev/null
	rm "$1.csr" "$1.ext"
}
certificate tls
certificate redis

openssl rand -base64 32 >kek
password=$(openssl rand -hex 32)
doctor=$(openssl rand -hex 32)
operator=$(openssl rand -hex 32)
hash() { printf %s "$1" | openssl dgst -sha256 -r | cut -d' ' -f1; }
# The login of the user default is off, but its rights must stay: Redis replays its append-only file as that user, and without
# them many releases drop the transactions in it. The user grantor is for grantor serve and apply, doctor for grantor doctor and
# audit; both have only the rights that they need (docs/doctor.md). operator is for the administrator of the Redis.
cat >users.acl <<END
user default off resetpass ~* &* +@all
user grantor on #$(hash "$password") resetkeys ~grantor:* resetchannels -@all +info +time +wait +eval +evalsha +set +hget +hmget +hgetall +hset +hdel +hlen +hexists +hincrby +pexpire +del +zadd +zrem +zrange +xadd +xread +xrange +xrevrange
user doctor on #$(hash "$doctor") resetkeys ~grantor:* resetchannels -@all +info +time +eval +evalsha +hmget +hgetall +zrange +xlen +xinfo|stream +xread +xrange +xrevrange +scan +config|get +slowlog|get +acl|whoami +acl|getuser +acl|dryrun
user operator on #$(hash "$operator") ~* &* +@all
END
echo "REDISCLI_AUTH=$operator" >operator.env
echo "GRANTOR_REDIS=rediss://grantor:$password@$redis/0" >grantor.env
echo "GRANTOR_REDIS=rediss://doctor:$doctor@$redis/0" >doctor.env
