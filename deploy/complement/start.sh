#!/usr/bin/env bash
# Starts one homeserver's processes in a container, and ends when any of them does.
#   SERVER_NAME   its name, as which it is reached on 8448
#   MASTERS       how many masters (2)
set -euo pipefail
: "${SERVER_NAME:?must be set}"
masters=${MASTERS:-2}
pg=$(echo /usr/lib/postgresql/*/bin)
# Becomes a program of another user; in the background or in parentheses, so that the program has the process id of its shell.
as() { exec setpriv --reuid "$1" --regid "$1" --init-groups "${@:2}"; }

# Every worker reads these.
export HEDDLE_CONFIG=/heddle/heddle.yml HEDDLE_SERVER_NAME=$SERVER_NAME HEDDLE_PUBLIC_BASEURL=http://$SERVER_NAME:8008 HOME=/data

# A certificate for federation, signed by the authority that the suite mounts; made anew at each start, as the name may have changed.
if [ -f /complement/ca/ca.key ]; then
	openssl req -newkey rsa:2048 -nodes -subj "/CN=$SERVER_NAME" -keyout /data/tls.key -out /data/tls.csr 2>/dev/null
	openssl x509 -req -in /data/tls.csr -CA /complement/ca/ca.crt -CAkey /complement/ca/ca.key -set_serial "0x$(openssl rand -hex 16)" \
		-days 30 -sha256 -extfile <(echo "subjectAltName=DNS:$SERVER_NAME") -out /data/tls.crt 2>/dev/null
else
	openssl req -x509 -newkey rsa:2048 -nodes -subj "/CN=$SERVER_NAME" -addext "subjectAltName=DNS:$SERVER_NAME" -days 30 \
		-keyout /data/tls.key -out /data/tls.crt 2>/dev/null
	export HEDDLE_FEDERATION_CA_FILE=/data/tls.crt
fi
chown heddle /data/tls.key /data/tls.crt

# The registrations of application services, which the suite puts there before the start.
services=()
for f in /complement/appservice/*.yaml; do
	[ -f "$f" ] || continue
	install -D -m 0400 -o heddle "$f" "/data/appservice/${#services[@]}.yaml"
	services+=("/data/appservice/${#services[@]}.yaml")
done
if [ ${#services[@]} -gt 0 ]; then
	HEDDLE_APPSERVICES=$(IFS=,; echo "${services[*]}")
	export HEDDLE_APPSERVICES
fi

pids=()
# shellcheck disable=SC2317 # called by the trap
stop() {
	trap - TERM INT EXIT
	local i
	for ((i = ${#pids[@]} - 1; i > 0; i--)); do kill -TERM "${pids[i]}" 2>/dev/null || true; done
	for ((i = ${#pids[@]} - 1; i > 0; i--)); do wait "${pids[i]}" 2>/dev/null || true; done
	kill -INT "${pids[0]}" 2>/dev/null || true # PostgreSQL last, and quickly
	wait "${pids[0]}" 2>/dev/null || true
}
trap 'stop; exit 0' TERM INT
trap stop EXIT

# What the container holds need not survive the machine, so nothing waits for the disk.
as postgres "$pg/postgres" -D /data/postgres -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off \
	-c full_page_writes=off -c max_connections=150 -c shared_buffers=64MB &
pids+=($!)
as heddle nats-server -a 127.0.0.1 -p 4222 -js -sd /data/nats >/data/log/nats.log 2>&1 &
pids+=($!)
until "$pg/pg_isready" -q -h 127.0.0.1 -U postgres; do sleep 0.05; done
"$pg/psql" -qAt -h 127.0.0.1 -U postgres -c "SELECT 1 FROM pg_database WHERE datname = 'heddle'" | grep -q 1 ||
	"$pg/createdb" -h 127.0.0.1 -U postgres heddle

(as heddle heddle keygen)
(as heddle heddle migrate)

addresses=()
for ((n = 1; n <= masters; n++)); do
	HEDDLE_INSTANCE=master-$n HEDDLE_LISTEN_HTTP=127.0.0.1:$((8100 + n)) HEDDLE_LISTEN_OPS=127.0.0.1:$((9100 + n)) as heddle master &
	pids+=($!)
	addresses+=(--master "127.0.0.1:$((8100 + n))")
done
HEDDLE_INSTANCE=synchrotron-1 HEDDLE_LISTEN_HTTP=127.0.0.1:8201 HEDDLE_LISTEN_OPS=127.0.0.1:9201 as heddle synchrotron &
pids+=($!)
HEDDLE_INSTANCE=federation-reader-1 HEDDLE_LISTEN_HTTP=127.0.0.1:8301 HEDDLE_LISTEN_OPS=127.0.0.1:9301 \
	HEDDLE_LISTEN_TLS_ADDRESS=0.0.0.0:8448 HEDDLE_LISTEN_TLS_CERT=/data/tls.crt HEDDLE_LISTEN_TLS_KEY=/data/tls.key \
	as heddle federation-reader &
pids+=($!)

# The proxy, as the route table has it. It starts when every worker is ready, so that /versions answers only then.
heddle routes --format nginx "${addresses[@]}" --synchrotron 127.0.0.1:8201 --federation-reader 127.0.0.1:8301 --listen 0.0.0.0:8008 \
	>/data/nginx/heddle.conf
cat >/data/nginx/nginx.conf <<NGINX
daemon off;
user heddle;
pid /data/nginx/pid;
error_log stderr warn;
events { worker_connections 4096; }
http { access_log off; map_hash_bucket_size 512; include /data/nginx/heddle.conf; }
NGINX
ready() { # GET /readyz answers 200
	exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
	printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3
	local line
	read -r line <&3 || line=
	exec 3>&-
	[[ $line == *" 200 "* ]]
}
for port in $(seq 9101 $((9100 + masters))) 9201 9301; do
	until ready "$port" 2>/dev/null; do
		for pid in "${pids[@]}"; do kill -0 "$pid" 2>/dev/null || exit 1; done
		sleep 0.05
	done
done
nginx -c /data/nginx/nginx.conf &
pids+=($!)

wait -n "${pids[@]}"
echo "a process ended, so all do" >&2
exit 1
