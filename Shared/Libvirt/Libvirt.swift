// Shared/Libvirt
