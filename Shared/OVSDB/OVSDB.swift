// Shared/OVSDB
