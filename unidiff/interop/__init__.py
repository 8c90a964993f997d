"""Bridges to the models of other libraries. Each is imported only when it is used."""
