"""How a set of images becomes an evaluation: pairs, judging, likeness, fairness, measures."""
