"""How fast numbers become codes and codes numbers: compiled, and in torch."""
