// Services/ComputeAgent/ComputeAgentService
