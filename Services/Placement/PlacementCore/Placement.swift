// Services/Placement/PlacementCore
