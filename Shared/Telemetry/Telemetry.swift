// Shared/Telemetry
