"""What people and programs meet: the command line, and the wiring that turns settings into models and stores."""
