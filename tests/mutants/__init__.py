"""Mutants: the code of money, floors and kernels with one fault each, which some test must see."""
