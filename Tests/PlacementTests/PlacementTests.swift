// PlacementTests
