// Shared/Workflow
