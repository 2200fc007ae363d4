"""Federated metadata: what documents are, how their versions descend from each other, who may write them."""
