"""A scale and the devices, as workflow/config/ describes them."""
