"""The methods that SiGAH is measured against: one file a method, arrays in, arrays out."""
