#!/bin/sh
# Runs the tests that touch the kernel on Debian 12's own (6.1, cgroup v2 only) in a virtual machine. `npm run test:vm`.
#
# The machine's root is this machine's, shared read-only (9p): the same programs, another kernel. The project is copied
# to a scratch disk, which also holds /tmp. Arguments, if any, are jest's instead of the default ones. Everything made
# here is in one directory and goes with it. Nothing is installed but qemu and e2fsprogs; the kernel is unpacked, not installed.
#
# Not part of `npm test`: where there is no /dev/kvm, qemu emulates the processor, and all of it takes about seven minutes
# on two cores.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)
limit=${TBUILD_VM_SECONDS:-1800}

[ "$(id -u)" = 0 ] || { echo 'Only root can share its whole root with a virtual machine.' >&2; exit 1; }
case $project/ in
  /tmp/* | /run/* | /root/*) echo "These tests need the project elsewhere than in $project: the machine has its own /tmp, /run and /root." >&2; exit 1 ;;
esac
work=$(mktemp -d /tmp/tbuild-vm-XXXXXX)
vm=
trap '[ -z "$vm" ] || { kill "$vm" 2>/dev/null && wait; }; rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM

missing=
for package in qemu-system-x86 busybox-static e2fsprogs; do
  status=$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null) || status=
  [ "$status" = installed ] || missing="$missing $package"
done
kernel=$(apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-\)/\1/p')
if [ -n "$missing" ] || [ -z "$kernel" ]; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  # shellcheck disable=SC2086 -- a list of words
  [ -z "$missing" ] || apt-get install -q -y --no-install-recommends $missing
  kernel=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-\)/\1/p')
fi

# The modules that Debian's kernel needs to see its disks, in the order of their dependencies.
modules='virtio/virtio_ring virtio/virtio virtio/virtio_pci_modern_dev virtio/virtio_pci_legacy_dev virtio/virtio_pci
  block/virtio_blk lib/crc16 crypto/crc32c_generic fs/mbcache jbd2/jbd2 ext4/ext4 netfs/netfs fscache/fscache 9p/9pnet
  9p/9pnet_virtio 9p/9p overlayfs/overlay'
mkdir "$work/deb" "$work/initrd" "$work/initrd/bin" "$work/initrd/modules"
# As root, not as the user that apt would download as: that one may not look into our directory.
download() { (cd "$work" && apt-get -q -o APT::Sandbox::User=root download "$kernel"); }
download || { apt-get update -q && download; } # the list may be an old one
dpkg-deb --fsys-tarfile "$work/$kernel"_*.deb | tar -x -C "$work/deb" ./boot --wildcards './lib/modules/*/kernel/*'
count=10
for module in $modules; do
  count=$((count + 1))
  cp "$(find "$work/deb" -path "*/$module.ko")" "$work/initrd/modules/$count.ko"
done
cp /bin/busybox "$work/initrd/bin/"
cp "$here/init.sh" "$work/initrd/init"
chmod +x "$work/initrd/init"
(cd "$work/initrd" && find . | busybox cpio -o -H newc >"$work/initrd.img" 2>/dev/null)

# What jest is to run; read by inside.sh.
mkdir -p "$work/scratch/project" "$work/scratch/tmp"
tar -C "$project" -c --exclude=./node_modules --exclude=./.git . | tar -C "$work/scratch/project" -x
mkdir "$work/scratch/project/node_modules"
[ $# -gt 0 ] || set -- runtime/ linux/ test/vm/ test/cache test/layers test/image test/security
printf '%s\n' "$@" >"$work/scratch/arguments"
mke2fs -q -F -t ext4 -d "$work/scratch" "$work/scratch.img" 6G
rm -rf "$work/scratch"

# One thread for both processors: with one each, Node now and then ended by SIGTRAP (2 of 25 starts; 0 of 60 this way).
accelerator=tcg,thread=single
# Some machines have a /dev/kvm on which no kernel starts. One without a root ends at once, where it does.
if [ -w /dev/kvm ] && timeout 20 qemu-system-x86_64 -machine q35 -accel kvm -cpu max -m 512M -nodefaults -no-user-config \
  -display none -no-reboot -kernel "$work"/deb/boot/vmlinuz-* -append panic=-1 >/dev/null 2>&1; then
  accelerator=kvm
fi
echo "tbuild-vm: $kernel, $accelerator"
mkfifo "$work/serial"
sed -u 's/\r//g' <"$work/serial" | tee "$work/console" &
reader=$!
timeout -k 10 "$limit" qemu-system-x86_64 \
  -machine q35 -accel "$accelerator" -cpu max -smp 2 -m 3G \
  -nodefaults -no-user-config -display none -no-reboot -serial stdio \
  -kernel "$work"/deb/boot/vmlinuz-* -initrd "$work/initrd.img" \
  -append "console=ttyS0 quiet panic=-1 cgroup_no_v1=all tbuild.project=$project" \
  -drive "file=$work/scratch.img,format=raw,if=virtio,cache=unsafe" \
  -fsdev local,id=host,path=/,security_model=none,readonly=on,multidevs=remap \
  -device virtio-9p-pci,fsdev=host,mount_tag=host \
  </dev/null >"$work/serial" 2>&1 &
vm=$!
wait "$vm" || true
vm=
wait "$reader"

# The machine's last word; without one it did not come that far.
status=$(sed -n 's/^tbuild-vm: exit \([0-9]*\)$/\1/p' "$work/console" | tail -n 1)
[ -n "$status" ] || echo "The virtual machine ended without a result, or not within $limit s." >&2
exit "${status:-1}"
