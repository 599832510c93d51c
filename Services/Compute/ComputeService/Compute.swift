// Services/Compute/ComputeService
