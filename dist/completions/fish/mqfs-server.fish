complete -c mqfs-server -s k -l key -d 'Key of the request queue: 0x and hexadecimal digits, 0 and octal ones, or a decimal number [env: MQFS_KEY] [default: 0x1aaaaaa1]' -r
complete -c mqfs-server -l key-file -d 'Derive the key from an existing file: ftok(PATH, \'m\')' -r -F
complete -c mqfs-server -l root -d 'Serve the files below this directory [default: /, but none if others may send requests and the server is not root\'s]' -r -f -a "(__fish_complete_directories)"
complete -c mqfs-server -l mode -d 'Who may send requests: 0600 (owner), 0620 (group), 0602 or 0622 (everybody)' -r
complete -c mqfs-server -l plain -d 'Which plain requests to answer: those of other programs, which do not prove who sent them' -r -f -a "never\t'None'
owner\t'All, if --mode lets only the owner send requests'
any\t'All, although a sender can then name another user\'s queue'"
complete -c mqfs-server -l max-children -d 'Most children at once; more requests wait in the queue' -r
complete -c mqfs-server -l max-per-user -d 'Most children at once for one user, whose further requests are told to try again later [default: 16 if others may send requests]' -r
complete -c mqfs-server -l stall-timeout -d 'How long a child waits for a client that does not read, or for a hung file system' -r
complete -c mqfs-server -l idle-timeout -d 'How long a session waits for its client\'s next question' -r
complete -c mqfs-server -l drain-timeout -d 'How long children may continue after the server stops' -r
complete -c mqfs-server -l reap-interval -d 'How often to remove the queues of dead clients' -r
complete -c mqfs-server -l window -d 'Most shared memory for each large file on its way, at most 64M; 0: none' -r
complete -c mqfs-server -l log-format -d 'The form of log lines' -r -f -a "text\t'Time, level, message and fields as name=value'
json\t'One JSON object to a line'"
complete -c mqfs-server -l claim-key -d 'As root: remove a queue that another user made under the key, whatever program uses it'
complete -c mqfs-server -s v -l verbose -d 'Log more'
complete -c mqfs-server -s q -l quiet -d 'Log only warnings and errors'
complete -c mqfs-server -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mqfs-server -s V -l version -d 'Print version'
