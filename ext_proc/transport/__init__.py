"""What listens needs of the file system: certificates, and Unix sockets with their modes."""
