/// The size to which a volume is being extended, in GiB: its quota is reserved when the extension is accepted.
let extendingVolumesMigration = Migration(
    27, "extending volumes", kind: .expand, "ALTER TABLE volumes ADD COLUMN extending_to integer CHECK (extending_to >= 1)")
