"""Motor units, volume conduction and the armband: surface EMG, chunk by chunk."""
