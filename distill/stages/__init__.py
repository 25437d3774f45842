"""The three stages of training; each is a module whose forward is its loss."""
