# The demand side for demos, tests and load: a DSP, and in requests/ what ad servers send. It decides no auction.
