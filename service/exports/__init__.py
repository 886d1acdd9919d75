"""What was found, in the formats of other programs: tables, files, Darwin Core, COCO Camera Traps, a page."""
