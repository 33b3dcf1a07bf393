"""One file per architecture family; `base` is the contract, `registry` the choice by name, `paths` where models lie."""
