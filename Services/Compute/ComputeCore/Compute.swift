// Services/Compute/ComputeCore
