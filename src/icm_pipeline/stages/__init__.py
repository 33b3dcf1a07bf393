"""One file per stage; each fills its folder from its parents' artifacts and never calls another stage."""
