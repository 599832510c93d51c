// Services/ComputeAgent/ComputeAgentCore
