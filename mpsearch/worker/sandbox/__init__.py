"""What shuts in a process that reads what strangers sent: files, network, calls, memory.

Each layer is applied by a small launcher that then becomes the program: before it loads a
library, so before there is a second thread that a layer would miss. Standard library only.
"""
