"""The methods that SiGAH is measured against: one file for each method, arrays in, arrays out."""
