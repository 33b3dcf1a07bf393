"""One file per architecture family; `base` holds the contract, `registry` the choice by name, `paths` where models lie."""
