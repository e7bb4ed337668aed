"""The networks: Mask R-CNN, its proposal network, and the parts that are swapped between arms."""
