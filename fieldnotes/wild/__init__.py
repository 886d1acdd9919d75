"""FieldNotes-Wild: the same world photographed as it is in life."""
