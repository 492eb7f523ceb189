#!/bin/busybox sh
# First process of the virtual machine, in its initramfs: modules, disks, then the shared root in place of this one.
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in /modules/*.ko; do insmod "$module" || echo "tbuild-vm: $module does not load"; done

project=$(sed 's/.*tbuild.project=\([^ ]*\).*/\1/' /proc/cmdline)
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose host /root || poweroff -f
# /tmp is on the scratch disk, and so is the copy of the project, which takes the place of the shared one.
mkdir /scratch
mount -t ext4 /dev/vda /scratch
chmod 1777 /scratch/tmp
mount --bind "/root$project/node_modules" /scratch/project/node_modules
mount -t tmpfs -o mode=755 run /root/run
mount -t tmpfs home /root/root
cp /scratch/arguments /root/run/arguments
mount --rbind /scratch/project "/root$project"
mount --bind /scratch/tmp /root/tmp
umount /scratch/project/node_modules /scratch 2>/dev/null
for folder in proc sys dev; do mount --move /$folder /root/$folder; done
exec switch_root /root /bin/busybox sh "$project/test/vm/inside.sh" "$project"
