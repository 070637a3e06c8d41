# OpenRTB in and out: its fields, its JSON, its messages. Import the modules; there is no second name for anything.
