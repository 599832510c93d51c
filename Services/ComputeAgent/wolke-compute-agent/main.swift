import ComputeAgentService

await ComputeAgentApplication.main()
