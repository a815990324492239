complete -c mqfs-stat -s k -l key -d 'Key of the request queue: 0x and hexadecimal digits, 0 and octal ones, or a decimal number [env: MQFS_KEY] [default: 0x1aaaaaa1]' -r
complete -c mqfs-stat -l key-file -d 'Derive the key from an existing file: ftok(PATH, \'m\')' -r -F
complete -c mqfs-stat -l id -d 'The queue with this id, as ipcs prints it: any program\'s, also one without a key' -r
complete -c mqfs-stat -l watch -d 'Repeat every TIME, with rates, until a signal; redraw in place on a terminal' -r
complete -c mqfs-stat -l json -d 'Print JSON, one object to a line, instead of tables'
complete -c mqfs-stat -l prometheus -d 'Print metrics in the text format of Prometheus'
complete -c mqfs-stat -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mqfs-stat -s V -l version -d 'Print version'
