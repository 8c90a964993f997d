"""Forward processes: how data becomes noise. Each is two functions of time, log alpha and log sigma."""
