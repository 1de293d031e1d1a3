package main

import _ "time/tzdata" // maintenance windows need time zones where the machine has none, such as Windows
