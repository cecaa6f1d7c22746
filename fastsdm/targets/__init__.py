"""Training targets and weights built on exact distances: instances, borders, connected components."""

from fastsdm.targets._border import border_weights
from fastsdm.targets._components import component_weights
from fastsdm.targets._instances import normalized_instance_distance

__all__ = ["border_weights", "component_weights", "normalized_instance_distance"]
