// Services/Placement/PlacementService
