"""Auctions nobody thought of: made from a seed, mutated from the corpus, and held to what any auction must be."""
