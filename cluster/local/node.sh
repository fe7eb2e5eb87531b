#!/bin/sh
# What a node runs in its fresh namespaces (two_nodes.py); "$@" is `ray start`.
set -eu
# Folders below /tmp that nodes share have to be found again once /tmp is the node's own.
index=0
for folder in $SHARED_FOLDERS; do
    index=$((index + 1))
    mkdir -p "$NODE_STATE/keep-$index"
    mount --bind "$folder" "$NODE_STATE/keep-$index"
done
mount --bind "$NODE_STATE/tmp" /tmp
mount -t tmpfs -o "size=$SHM_BYTES" tmpfs /dev/shm
index=0
for folder in $SHARED_FOLDERS; do
    index=$((index + 1))
    mkdir -p "$folder"
    mount --bind "$NODE_STATE/keep-$index" "$folder"
done
mount --bind "$NODE_STATE/hosts" /etc/hosts
hostname "$NODE_NAME"
# This shell is process 1 of the node: it stays, to take in processes whose parents are gone.
"$@" &
wait
