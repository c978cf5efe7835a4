"""What tests share: projects, pictures, pools, and the program run as a user runs it."""
