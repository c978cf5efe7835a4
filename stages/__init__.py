"""The bundled stages. A pipeline's own `stages/` folder stands beside this one on `stages.__path__`."""
