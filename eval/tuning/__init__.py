"""What is fitted or chosen on a split that may decide: calibrations, grids, estimates of cost."""
