// ComputeAgentTests
