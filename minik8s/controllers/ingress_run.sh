#!/bin/sh
# What the ingress pods run: nginx on a copy of the mounted configuration, exchanged when the mounted one changes.
#   run.sh          serve for ever
#   run.sh check    say whether nginx takes the configuration, by the exit code and in its own words
# A change is tried first; one that nginx refuses leaves the old one live. Needs nothing but nginx, gunzip and a POSIX shell.
mounted=/etc/ingress
root=/tmp/ingress
live=

take() { # Copy what is mounted now; sets `version`, or fails if it changed meanwhile.
  version= after=
  read -r version <$mounted/version || return 1
  rm -rf "${root:?}/$version"
  mkdir -p "$root/$version" && cp -L $mounted/* "$root/$version/" && gunzip "$root/$version/nginx.conf.gz" || return 1
  read -r after <"$root/$version/version"
  [ "$version" = "$after" ] && read -r after <$mounted/version && [ "$version" = "$after" ]
}

until take; do sleep 0.2; done
[ "$1" != check ] || exec nginx -t -c "$root/$version/nginx.conf"

live=$version
ln -sfn "$version" $root/live
nginx -c $root/live/nginx.conf -g 'daemon off;' &
nginx=$!
trap 'kill -QUIT $nginx' TERM QUIT INT

refused=
while kill -0 $nginx 2>/dev/null; do
  sleep 1 & wait $! # a signal ends this wait, not the sleep
  read -r wanted <$mounted/version || continue
  [ "$wanted" != "$live" ] && [ "$wanted" != "$refused" ] || continue
  take || continue
  if ! nginx -t -q -c "$root/$version/nginx.conf"; then
    refused=$version
    continue
  fi
  ln -sfn "$version" $root/live && kill -HUP $nginx && rm -rf "${root:?}/$live"
  live=$version refused=
done
wait $nginx
